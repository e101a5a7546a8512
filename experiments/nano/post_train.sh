#!/usr/bin/env bash
# Post-training of the shipped voice on one NVIDIA GPU: preferences, rewards, and both; then the table of all
# on the everyday test set. MINUTES bounds each run with rewards. A stage that was interrupted goes on when the
# script is started again.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-runs/post} minutes=${MINUTES:-16} nano=qtts_jax/embedded_checkpoint
pip install -e '.[train,corpus,eval]' && pip install --no-deps resemblyzer==0.1.4 distillmos==0.9.1
mkdir -p "$out"

# 1. Everyday texts, all voices in turns: to learn from, to watch, and the committed test set. Those to learn
#    from are of similar lengths, so that few shapes are compiled.
voices=$(python -c 'from qtts_jax import QwenTTS; print(*QwenTTS.from_pretrained().supported_speakers)')
python -m experiments.corpus.build --out corpus --steps fetch
python -m experiments.corpus.prompts --corpus corpus --longest 75 --count 4000 --speaker $voices --out "$out/prompts.jsonl"
python -m experiments.corpus.prompts --corpus corpus --longest 75 --first 4000 --count 192 --speaker $voices --out "$out/validation.jsonl"
python -m experiments.corpus.prompts --texts experiments/nano/everyday.jsonl --speaker $voices --out "$out/held.jsonl"

# 2. Each run begins with the durations and voices of the model before any of them, spoken once. DistillMOS is
#    no reward here, so that both predictors of opinion measure what was not learned from.
options="--prompts $out/prompts.jsonl --held-out $out/validation.jsonl --opinion 0 --likeness 0.2 --rows 512 --judge-on-devices --judge-processes 12"
policy="--group-prompts 64 --samples 8 --rate 10 --minutes $minutes --decay-minutes 3 --held-out-every 50"
python -m experiments.train.post_train dpo --model $nano --out "$out/dpo" --temperature 0.4 --samples 8 --epochs 2 --rate 3 $options
for run in gspo both; do
    mkdir -p "$out/$run"
    cp -rn "$out/dpo/start" "$out/dpo/start_held_out" "$out/$run"
done
python -m experiments.train.post_train gspo --model $nano --out "$out/gspo" $policy $options
python -m experiments.train.post_train gspo --model "$out/dpo/model" --out "$out/both" $policy $options

# 3. Words, voices, opinions and durations of three draws of every test text; the best of 16 draws is the ceiling.
score="python -m experiments.nano.post_training --out $out/scores --before $nano --prompts $out/held.jsonl --judge-on-devices --judge-processes 12 --rows 512"
$score --model $nano --row SFT --seeds 0 1 2
$score --model "$out/dpo/model" --row +DPO --seeds 0 1 2
$score --model "$out/gspo/model" --row +GSPO --seeds 0 1 2
$score --model "$out/both/model" --row +both --seeds 0 1 2
$score --model $nano --row ceiling --best-of 16
