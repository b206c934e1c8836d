"""`last.ckpt` is the last: after each epoch, or more often, whatever is monitored."""

from datetime import timedelta

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from rnnx_lightning.architectures import Deep
from rnnx_lightning.callbacks import BestAndLast, GracefulStop
from rnnx_lightning.callbacks.keeping import best_and_last, last_checkpoint
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences

STEPS = 4  # in an epoch


class Watch(L.Callback):
    """Logs a score that never improves; notes what `last.ckpt` holds when a step begins."""

    def __init__(self):
        self.held = []

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("flat", 1.0)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        path = last_checkpoint(trainer)
        self.held.append(torch.load(path, weights_only=True) if path.exists() else None)


def watched(folder, keep, **options):
    watch = Watch()
    trainer = L.Trainer(
        accelerator="cpu", limit_train_batches=STEPS, limit_val_batches=1, logger=False,
        default_root_dir=folder, callbacks=[watch, GracefulStop(), *keep], enable_progress_bar=False,
        enable_model_summary=False, **{"max_epochs": 4, **options},
    )  # fmt: skip
    trainer.fit(
        SequenceClassifier(Deep(hidden=8, recurrent=8)), MajoritySequences(dataset="digits", batch_size=20)
    )
    return watch.held, trainer


FLAT = {"monitor": "flat", "filename": "best", "enable_version_counter": False}
HOLDS = {
    # name: (options of the callback, options of the trainer, steps between two checkpoints within an epoch)
    "nothing monitored": ({"monitor": None}, {}, None),
    "never better": (FLAT, {}, None),
    "never better, rarely validated": (FLAT, {"check_val_every_n_epoch": 3}, None),
    "never better, often validated": (FLAT, {"val_check_interval": 2}, None),
    "no best at all": ({**FLAT, "save_top_k": 0}, {}, None),
    "best every third epoch": ({**FLAT, "every_n_epochs": 3}, {}, None),
    "only weights of the best": ({**FLAT, "save_weights_only": True}, {}, None),
    "every 3 steps": ({**FLAT, "every_n_train_steps": 3}, {}, 3),
    "every 3 steps, rarely validated": ({**FLAT, "every_n_train_steps": 3}, {"check_val_every_n_epoch": 3}, 3),
    "at the last step, too": ({**FLAT, "every_n_train_steps": STEPS}, {}, STEPS),
    "whenever time has passed": ({**FLAT, "train_time_interval": timedelta(0)}, {}, 1),
    "a number in each name": ({**FLAT, "enable_version_counter": True}, {}, None),
}


@pytest.mark.parametrize("name", HOLDS)
def test_the_last_checkpoint_holds_the_last_finished_epoch(name, tmp_path):
    chosen, options, every = HOLDS[name]
    held, trainer = watched(tmp_path, [BestAndLast(dirpath=tmp_path, **chosen)], **options)
    held.append(torch.load(tmp_path / "last.ckpt", weights_only=True))
    assert held[0] is None
    for step, checkpoint in enumerate(held[1:], 1):
        expected = max(step // STEPS * STEPS, step // (every or 100) * (every or 100))
        if expected == 0:
            assert checkpoint is None
            continue
        assert checkpoint["global_step"] == expected
        assert checkpoint["optimizer_states"]
        if expected % STEPS == 0:  # the epoch's end, with its validation, and not merely its last step
            assert checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == expected // STEPS
    for key, weight in trainer.lightning_module.network.state_dict(prefix="network.").items():
        assert torch.equal(weight, held[-1]["state_dict"][key])


def test_the_last_checkpoint_knows_of_the_best(tmp_path):
    _, trainer = watched(tmp_path, [BestAndLast(dirpath=tmp_path, **FLAT)])
    (state,) = (
        state
        for key, state in torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"].items()
        if key.startswith("BestAndLast")
    )
    assert state["best_model_path"] == best_and_last(trainer).best_model_path == str(tmp_path / "best.ckpt")
    assert state["best_model_score"] == 1
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == STEPS


def test_the_best_so_far_is_known_also_where_checkpoints_are_written_more_often(tmp_path):
    """How often is no part of what a run goes on with; without it a worse network would replace the best."""
    keys = {BestAndLast(dirpath=tmp_path, **FLAT, **often).state_key for often in ({}, {"every_n_train_steps": 3})}
    assert len(keys) == 1
    assert BestAndLast(dirpath=tmp_path, monitor="other").state_key not in keys


def test_none_is_kept_where_none_is_wanted(tmp_path):
    watched(tmp_path, [BestAndLast(dirpath=tmp_path, save_last=False, **FLAT)])
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]


def test_a_checkpoint_that_a_user_adds_does_not_move_the_last(tmp_path):
    more = ModelCheckpoint(tmp_path / "more", monitor="flat")
    _, trainer = watched(tmp_path, [more, BestAndLast(dirpath=tmp_path, **FLAT)])
    assert trainer.checkpoint_callback is more
    assert last_checkpoint(trainer) == tmp_path / "last.ckpt"


def test_early_stopping_sees_a_score_again_in_epochs_without_validation(tmp_path):
    """Docs, "What callbacks see that monitor a score": the score never improves after the first validation."""

    def epochs(**options):
        stop = EarlyStopping("flat", patience=2, **options)
        keep = BestAndLast(dirpath=tmp_path, monitor=None)
        return watched(tmp_path, [stop, keep], max_epochs=9, check_val_every_n_epoch=2)[1].current_epoch

    assert epochs() == 6  # two validations after the first one
    with pytest.raises(RuntimeError, match="`flat` which is not available"):
        epochs(check_on_train_epoch_end=True)
    assert epochs(check_on_train_epoch_end=True, strict=False) == 4  # two epochs after the first validation
