"""What does the semantic teacher of codebook 0 do for the talker?

    python -m experiments.run teacher

Answer: not run at a scale that answers it. `results/ablations/tiny/teacher.md` shows that the
machinery works. At scale nano about 6 runs of an hour on one GPU, with a Whisper encoder as the
teacher (`--teacher`); at scale tiny the teacher is codebook 0 of the shipped tokenizer.
"""

VARIATIONS = {
    "with teacher": {},
    "without teacher": {"stages.*.training.teacher_width": None},
}
