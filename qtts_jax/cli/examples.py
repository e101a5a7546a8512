"""Examples for the help of `qtts` and of its commands."""

EPILOG = """\
Without --model, commands use nano, a 30 MB checkpoint inside the package: 26 English voices,
clones of the timbre of a recording, and voices described in words. A released checkpoint is
converted once:
  python -m convert Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice models/0.6B

examples:
  qtts say "Hello there." -o hello.wav
  qtts clone "In my voice." --ref-audio me.wav --x-vector-only -o clone.wav
  qtts batch requests.jsonl --out spoken --model models/0.6B

`qtts COMMAND --help` has the options and examples of a command."""

EXAMPLES = {
    "say": """\
  qtts say "Hello there." -o hello.wav
  qtts say "Good morning." --speaker joe --seed 1 --temperature 0.7 -o morning.wav
  some_program | qtts say - --stream -o spoken.wav""",
    "design": """\
  qtts design "Good evening." --instruct "A man with a low voice." -o evening.wav""",
    "clone": """\
  qtts clone "In my voice." --ref-audio me.wav --x-vector-only -o clone.wav
  qtts clone "In my voice." --ref-audio me.wav --ref-text "What I say there." \\
      --model models/0.6B-Base -o clone.wav""",
    "text": """\
  qtts text "Dr. Lee of the FBI paid $12.50."
  qtts text - --language english < chapter.txt""",
    "encode": """\
  qtts encode me.wav codes.npy""",
    "decode": """\
  qtts decode codes.npy again.wav""",
    "embed": """\
  qtts embed me.wav xvector.npy --model models/0.6B-Base""",
    "voice": """\
  qtts voice me.wav xvector.npy mel.npy --model models/25hz
  qtts decode codes.npy again.wav --xvector xvector.npy --ref-mel mel.npy --model models/25hz""",
    "warmup": """\
  qtts warmup models/0.6B --batch-size 1 --seconds 20""",
    "info": """\
  qtts info
  qtts info --model models/0.6B --mesh data=8""",
    "batch": """\
  qtts batch requests.jsonl --out spoken
  qtts batch requests.jsonl --out spoken --mesh data=8 --cluster
with requests.jsonl such as
  {"id": "one", "text": "Good morning.", "speaker": "joe", "seed": 1}
  {"id": "two", "text": "Softly.", "mode": "voice_design", "instruct": "A calm voice."}
each request on one line; qtts_jax/tts/README.md lists the fields""",
    "serve": """\
  qtts serve
  QTTS_API_KEY=secret qtts serve --model models/0.6B --rows 64 --voices voices --port 8000
qtts_jax/serving/README.md lists routes and fields""",
    "eval": """\
  qtts eval tts --manifest clips.jsonl --out scores --clips 20
  qtts eval codec --manifest clips.jsonl --out scores --model models/0.6B-Base""",
}
