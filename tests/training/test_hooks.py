"""Speech samples and held-out losses during a run."""

import jax
import numpy as np
import pytest
import soundfile

from qtts_jax.training.hooks import averaged, held_out_loss
from qtts_jax.training.log import RunLog, read_metrics
from qtts_jax.training.talker.samples import speech_samples
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.trainer import Hook
from tests.support.line_task import LineBatches, LineTask
from tests.training.test_trainer import trainer


class LineLoss(LineTask):
    def loss(self, params, extras, batch, key):
        metrics = self.gradients(params, extras, batch, key)[2]
        return metrics["loss"], metrics


def test_held_out_losses_are_means_of_the_averaged_weights(tmp_path):
    task, data = LineLoss(), LineBatches()
    batches = [next(data) for _ in range(3)]
    run = trainer(tmp_path, hooks=[Hook(4, held_out_loss(task.loss, batches))], steps=4)
    run.run()
    rows = [r for r in read_metrics(tmp_path) if "held_out/loss" in r]
    assert [r["step"] for r in rows] == [4]
    state = run.newest()
    assert averaged(state) is state.average
    wanted = [
        float(task.loss(state.average, state.extras, b, jax.random.key(i))[0])
        for i, b in enumerate(batches)
    ]
    assert rows[0]["held_out/loss"] == pytest.approx(np.mean(wanted), rel=1e-5)


def test_only_a_lower_held_out_loss_than_all_before_is_better(tmp_path):
    training = trainer(tmp_path, steps=1)
    training.run()
    state, log = training.newest(), RunLog(tmp_path / "log", tensorboard=False)
    batch, better = {}, []
    run = held_out_loss(
        lambda params, extras, batch, key: (batch["v"], {"loss": batch["v"]}),
        [batch],
        lambda _: better.append(float(batch["v"])),
    )
    for value in (3.0, 2.0, 4.0, 2.0, 1.0):
        batch["v"] = np.float32(value)
        run(state, log)
    assert better == [3, 2, 1]


@pytest.mark.slow
def test_samples_are_what_the_model_says(tts, tmp_path):
    pytest.importorskip("matplotlib")
    model = tts("custom_voice", exact_reference=False)
    request = model.prepare_custom_voice(
        "Hello there, this is a test.", "ryan", "english", seed=11, max_new_tokens=12
    )
    task = TalkerTask(TalkerTaskConfig(model.config, dtype="float32"), model.params)
    says = speech_samples(task, model.speech_tokenizer, {"ryan": request})

    # A run of the small task, in which the hook sees the model's parameters.
    def run(state, log):
        params = {part: model.params[part] for part in ("talker", "code_predictor")}
        says(state._replace(params=params, average=None, extras={"frozen": {}}), log)

    trainer(tmp_path, hooks=[Hook(2, run)], steps=2).run()
    speech = model.synthesize([request])[0]
    row = next(r for r in read_metrics(tmp_path) if "frames/ryan" in r)
    assert row["frames/ryan"] == len(speech.codes) > 0
    wave, _ = soundfile.read(tmp_path / "samples/00000002/ryan.wav", dtype="float32")
    np.testing.assert_allclose(wave, speech.wave, atol=1e-5)
