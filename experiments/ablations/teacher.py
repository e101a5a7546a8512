"""What does the semantic teacher of codebook 0 do for the talker?

    python -m experiments.run teacher

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/teacher.md`) no difference that
its intervals show: loss of codebook 0 without it -0.15 [-0.36, 0.12] nats a code; there the teacher
is codebook 0 of the shipped tokenizer. Scale nano: 6 runs of 75 minutes on one H100, 7.5 hours,
with a Whisper encoder (`--teacher`).
"""

VARIATIONS = {
    "with teacher": {},
    "without teacher": {"stages.*.training.teacher_width": None},
}
