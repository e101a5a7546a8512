"""What does the semantic teacher of codebook 0 do for the talker?

    python -m experiments.run teacher

Answer: not run yet. Scale nano: 6 runs of 75 minutes on one H100, 7.5 hours, with a Whisper encoder
as the teacher (`--teacher`); at scale tiny the teacher is codebook 0 of the shipped tokenizer.
"""

VARIATIONS = {
    "with teacher": {},
    "without teacher": {"stages.*.training.teacher_width": None},
}
