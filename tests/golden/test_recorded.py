"""Our engine against what transformers computed when `record.py` ran."""

import numpy as np
import pytest
from tests.golden import models
from tests.golden.record import checkpoint_hash, following
from tests.reference_metrics import agreement


@pytest.mark.parametrize("kind", models.SMALL_KINDS)
def test_small_random_models(kind, tmp_path):
    """Random weights amplify each activation level that flips, so the bounds are wide; a wrong rule misses them by
    far.
    """
    recorded = np.load(models.FOLDER / f"small-{kind}.npz")
    checkpoint = models.small_checkpoint(tmp_path, kind)
    assert checkpoint_hash(checkpoint) == str(recorded["checkpoint"]), "other weights than were recorded: make golden"
    found = agreement(recorded["logits"][0], models.engine_logits(checkpoint, models.small_windows())[0])
    assert found.kl < 2e-3
    assert found.argmax >= 0.95


@pytest.mark.parametrize("kind", models.TRAINED_KINDS)
def test_trained_model(kind, tmp_path):
    recorded, windows = np.load(models.FOLDER / f"trained-{kind}.npz"), models.heldout()
    checkpoint = models.trained_checkpoint(tmp_path, kind)
    assert checkpoint_hash(checkpoint) == str(recorded["checkpoint"]), "other weights than were recorded: make golden"
    logits = models.engine_logits(checkpoint, windows)
    assert (logits.argmax(-1) == recorded["argmax"]).mean() >= 0.99
    for text in range(2):
        expected = recorded["logits"][text].reshape(-1, logits.shape[-1])
        found = logits[text][:, models.POSITIONS].reshape(expected.shape)
        assert agreement(expected, found).kl < 2e-4
        perplexity = np.exp((recorded["following"][text] - following(logits[text], windows[text])).mean(dtype=float))
        assert abs(perplexity - 1) < 1e-3
