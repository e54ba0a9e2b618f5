"""The client for code that blocks, over gRPC's own blocking channel."""
