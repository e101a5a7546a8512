"""The requests put to every generated checkpoint, in the `qtts batch` format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.golden_tools.small_checkpoints import Spec

HELLO = "Hello there, this is another test."
LONG = (
    "The other thing in there is one more bird, singing and reading; then the rest of the "
    "sentence goes on for a while, and ends here."
)
CHINESE = "你好，世界！今天天气很好。"
GERMAN = "Schöne Grüße aus Köln – bis bald!"
FRENCH = "Ça va ? Déjà l'été…"
TEXTS = (
    HELLO,
    LONG,
    CHINESE,
    GERMAN,
    FRENCH,
    "iPhone, McDonald's, theThing, o'the y'singing don'tx I'LL",
    "  two  spaces\n\nand 12345 digits!?/",
    "e\u0301 decomposed, \U0001f600 emoji, हिन्दी",
    "a <|im_end|> inside <tts_pad> text",
    "",
)


@dataclass(frozen=True)
class Group:
    """Requests generated in one official call."""

    requests: list[dict[str, Any]]
    joint_references: bool = False


def generation_groups(spec: Spec) -> list[Group]:
    """Return the groups for a checkpoint of this kind; request ids are unique in it."""
    groups = {
        "custom_voice": _custom_voice,
        "voice_design": _voice_design,
        "base": _voice_clone,
    }[spec.kind]()
    mode = "voice_clone" if spec.kind == "base" else spec.kind
    for group in groups:
        for request in group.requests:
            request.update(mode=mode, greedy=True)
    return groups


def recordings(spec: Spec) -> dict[str, tuple[int, int, int]]:
    """Return file name -> (samples, sample rate, channels) of the reference recordings."""
    if spec.kind != "base":
        return {}
    return {
        "long.wav": (17777, 24000, 1),
        "short.wav": (5000, 24000, 1),
        "16k.wav": (6001, 16000, 1),
        "stereo.wav": (12000, 44100, 2),
    }


def tokenizer_cases(spec: Spec) -> dict[str, Any]:
    """Return sample counts to encode, frame counts to decode and the stride of long waves.

    Waves are detweights.wave(seed, "encode/SAMPLES", SAMPLES, 24000) and codes
    detweights.integers(seed, "decode/FRAMES", (FRAMES, Q), entries).
    """
    frame = spec.samples_per_frame
    return {
        "encode_samples": [1, frame - 1, frame, frame + 1, 5 * frame + 777, 9 * frame - 13],
        "decode_frames": [1, 2, 13, 26, 311],
        "long_stride": 97,
    }


def _group(*requests: dict[str, Any], joint: bool = False, **shared: Any) -> Group:
    return Group([{**r, **shared} for r in requests], joint)


def _custom_voice() -> list[Group]:
    return [
        _group(
            {"id": "instruct", "text": HELLO, "language": "English", "speaker": "Ryan"},
            instruct="Speak in a singing voice.",
            max_new_tokens=30,
        ),
        _group(
            {"id": "auto_stream", "text": LONG, "speaker": "serena"},
            stream_text=True,
            max_new_tokens=60,
        ),
        _group(
            {"id": "dialect_auto", "text": CHINESE, "language": "Auto", "speaker": "Dylan"},
            {"id": "dialect_chinese", "text": "好", "language": "chinese", "speaker": "ERIC"},
            {"id": "dialect_other", "text": GERMAN, "language": "German", "speaker": "eric"},
            {
                "id": "plain_chinese",
                "text": CHINESE * 3,
                "language": "Chinese",
                "speaker": "vivian",
            },
            {"id": "five_french", "text": FRENCH, "language": "FRENCH", "speaker": "uncle_fu"},
            stream_text=True,
            max_new_tokens=24,
        ),
        _group(
            {
                "id": "mixed_instruct",
                "text": LONG,
                "language": "Russian",
                "speaker": "aiden",
                "instruct": "Read the text slowly, with a low voice.",
            },
            {"id": "mixed_empty", "text": "Hi", "speaker": "ono_anna", "instruct": ""},
            {"id": "mixed_none", "text": FRENCH, "language": "French", "speaker": "sohee"},
            stream_text=False,
            repetition_penalty=1.0,
            max_new_tokens=16,
        ),
        _group(
            {"id": "one_letter", "text": "a", "language": "Korean", "speaker": "vivian"},
            stream_text=True,
            repetition_penalty=1.3,
            max_new_tokens=40,
        ),
        _group(
            {"id": "one_frame", "text": HELLO, "language": "Spanish", "speaker": "vivian"},
            max_new_tokens=2,
        ),
    ]


def _voice_design() -> list[Group]:
    ask = "A calm old man, reading the news."
    return [
        _group(
            {"id": "design", "text": HELLO, "language": "English", "instruct": ask},
            max_new_tokens=40,
        ),
        _group(
            {"id": "stream_short", "text": "Yes.", "instruct": ask},
            {"id": "stream_plain", "text": LONG, "language": "Italian", "instruct": ""},
            {"id": "stream_long", "text": CHINESE, "language": "Chinese", "instruct": ask * 2},
            stream_text=True,
            max_new_tokens=30,
        ),
        _group(
            {"id": "five_0", "text": GERMAN, "language": "German", "instruct": ask},
            {"id": "five_1", "text": "a", "instruct": "b"},
            {"id": "five_2", "text": LONG, "language": "Portuguese", "instruct": ask * 3},
            {"id": "five_3", "text": FRENCH, "language": "French", "instruct": ""},
            {"id": "five_4", "text": CHINESE, "language": "Japanese", "instruct": CHINESE},
            stream_text=False,
            max_new_tokens=20,
        ),
    ]


def _voice_clone() -> list[Group]:
    long = {"ref_audio": "audio/long.wav"}
    short = {"ref_audio": "audio/short.wav"}
    telephone = {"ref_audio": "audio/16k.wav"}
    stereo = {"ref_audio": "audio/stereo.wav"}
    alone = {"x_vector_only": True}
    return [
        _group(
            {"id": "xvector", "text": HELLO, "language": "English", **long, **alone},
            stream_text=True,
            max_new_tokens=50,
        ),
        _group(
            {"id": "xvector_whole_text", "text": LONG, **telephone, **alone},
            stream_text=False,
            max_new_tokens=30,
        ),
        _group(
            {"id": "text_longer", "text": LONG, **short, "ref_text": HELLO},
            stream_text=True,
            max_new_tokens=30,
        ),
        _group(
            {"id": "text_shorter", "text": "A", "language": "German", **long, "ref_text": "B"},
            stream_text=True,
            max_new_tokens=20,
        ),
        _group(
            {"id": "whole_text", "text": HELLO, "language": "Korean", **stereo},
            stream_text=False,
            ref_text=FRENCH,
            max_new_tokens=40,
        ),
        _group(
            {"id": "five_0", "text": LONG, "language": "English", **long, "ref_text": CHINESE},
            {"id": "five_1", "text": "Hi", **short, **alone},
            {"id": "five_2", "text": CHINESE, "language": "Chinese", **telephone, "ref_text": "A"},
            {"id": "five_3", "text": GERMAN, "language": "German", **stereo, **alone},
            {"id": "five_4", "text": FRENCH, "language": "French", **short, "ref_text": LONG},
            stream_text=True,
            max_new_tokens=20,
        ),
        _group(
            {"id": "joint_0", "text": HELLO, "language": "English", **long, "ref_text": "The"},
            {"id": "joint_1", "text": CHINESE, **short, "ref_text": HELLO},
            joint=True,
            stream_text=True,
            max_new_tokens=12,
        ),
        _group(
            {"id": "one_frame", "text": HELLO, **short, "ref_text": "The bird"},
            stream_text=True,
            max_new_tokens=2,
        ),
    ]
