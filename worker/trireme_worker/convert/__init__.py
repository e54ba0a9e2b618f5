"""Hugging Face checkpoints of ternary models into packs."""

from trireme_worker.convert.conversion import ConversionSummary, convert

__all__ = ["ConversionSummary", "convert"]
