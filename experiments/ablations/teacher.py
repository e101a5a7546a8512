"""What does the semantic teacher of codebook 0 do for the talker?

    python -m experiments.run teacher

Answer: at scale small (3 seeds, `experiments/results/ablations/small/teacher.md`) codebook 0 is
easier to predict with it, 0.64 [0.51, 0.79] nats a code, and the talker reads as badly without:
60.8 [53.0, 70.7] % of the words wrong with, 60.5 [44.8, 75.8] without. At scale tiny, where the
teacher is codebook 0 of the shipped tokenizer, the intervals show no difference: -0.15 [-0.36,
0.12] nats without it. Scale nano: 6 runs of 75 minutes on one H100, 7.5 hours, with a Whisper
encoder (`--teacher`).
"""

VARIATIONS = {
    "with teacher": {},
    "without teacher": {"stages.*.training.teacher_width": None},
}
