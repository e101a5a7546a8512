"""Is text that streams beside the frames as good as the whole text before the first frame?

    python -m experiments.run text_layout

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/text_layout.md`) all four
layouts predict the codes alike: against the whole text first with language tag, the loss of
codebook 0 differs by -0.04 [-0.10, 0.02] nats a code with streamed text. Scale nano: 12 talkers of
30 minutes and 3 tokenizers of 45, which the variations share, on one H100: 8 hours. The language
tag (the thinking block) is on or off in both layouts. Each talker speaks in the layout that it was
trained on.
"""

STREAM, TAG = "talker_batches.mix.stream_text", "talker_batches.mix.language_tag"
VARIATIONS = {
    "whole text first, language tag": {STREAM: 0.0, TAG: 1.0},
    "streamed text, language tag": {STREAM: 1.0, TAG: 1.0},
    "whole text first, no tag": {STREAM: 0.0, TAG: 0.0},
    "streamed text, no tag": {STREAM: 1.0, TAG: 0.0},
}
