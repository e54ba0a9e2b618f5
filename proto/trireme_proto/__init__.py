"""What every process of Trireme shares: messages, the error tree, the limits. Knows nothing of its users."""
