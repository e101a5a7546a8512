"""Text to ids: the official ids, the chat slices, text in parts, broken files."""

import json
import random
import shutil
import time
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from qtts_jax.errors import TextError
from qtts_jax.text.bpe import MISTRAL_SPLIT, QWEN2_SPLIT, TextTokenizer
from qtts_jax.text.nfc import stable_length

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "ckpt" / "base"

SAMPLES = [
    "Hello there, this is a test.",
    "Hello 你好，世界。今天天气很好！",
    "don't we'll I'VE they're o'clock 'Tis",
    "\n\nleading lines",
    "  \n leading blanks",
    "   leading spaces",
    "trailing blanks  \n",
    "a\n \n b\r\n\r\nc\t\td",
    "123 4567 ٣٤ ½ Ⅷ 3.14",
    "e\u0301 \u1eb9\u0301 o\u0308\u0323 \u00e9\u0323",
    "क्षि हिन्दी में",
    "안녕하세요 \u1112\u1161\u11ab\u1100\u1161",
    "日本語テスト か\u3099",
    "😀👩\u200d👩\u200d👧 🇩🇪",
    "McDonald iPhoneXS ABCdef 日本AB日本 ǅ",
    "日\u0903Bc हिन्दीABc",
    "a/b/\n//x !!!\n\n/\n?",
    "<|im_end|> <tts_pad>x<tts_text_bos>  <tts_ <|im_",
    "=\u0338 <\u0338|im_end|> <|im_end|>\u0338",
    "\u00a0nbsp\u2003em\u3000ideo\u200b\ufeff",
    "…—“quotes” \x00\x1c\x85 ſ 'ſ \u212a \u0378",
]


@pytest.fixture(scope="module")
def tiny():
    return TextTokenizer.from_dir(TINY)


@pytest.fixture(scope="module", params=[QWEN2_SPLIT, MISTRAL_SPLIT], ids=["qwen2", "mistral"])
def dense(request):
    """A vocabulary that merges across words, so that every wrong boundary changes ids."""
    rng = random.Random(3)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=12,
    )
    texts = [unicodedata.normalize("NFC", random_text(rng)) for _ in range(3000)]
    learner.train_from_iterator(texts, trainer)
    model = json.loads(learner.to_str())["model"]
    added = {"<|im_start|>": 9000, "<|im_end|>": 9001, "<tts_pad>": 9002, "<tts_text_bos>": 9003}
    return TextTokenizer(model["vocab"], [tuple(m) for m in model["merges"]], added, request.param)


def big_vocabulary(directory, version, aside="aB"):
    """A checkpoint large enough for the reference to swap the pattern, with one telling merge."""
    shutil.copytree(TINY, directory, ignore=shutil.ignore_patterns("speech_tokenizer"))
    vocab = json.loads((TINY / "vocab.json").read_text())
    vocab[aside] = 100_000
    vocab |= {f"unused {i}": 100_001 + i for i in range(100_000 - len(vocab) + 1)}
    (directory / "vocab.json").write_text(json.dumps(vocab))
    (directory / "merges.txt").write_text((TINY / "merges.txt").read_text() + "\na B\n")
    (directory / "config.json").write_text(json.dumps({"transformers_version": version}))
    return directory


def in_pieces(tokenizer, pieces):
    incremental = tokenizer.incremental()
    ids = [id_ for piece in pieces for id_ in incremental.push(piece)]
    return incremental.role_ids, ids + incremental.finish()


def random_pieces(text, rng, longest):
    cuts, at = [], 0
    while at < len(text):
        size = rng.randint(0, longest) if longest > 1 else 1
        cuts.append(text[at : at + size])
        at += size
    return cuts


def random_text(rng):
    joined = "".join(SAMPLES)
    pick = rng.random()
    if pick < 0.4:
        return "".join(rng.choice(joined + "  \n\n'strab<|>") for _ in range(rng.randint(1, 50)))
    return "".join(rng.choice([*SAMPLES, " ", "\n", "  "]) for _ in range(rng.randint(1, 4)))


def test_ids_equal_official():
    cases = json.loads((GOLDEN / "index.json").read_text())["cases"]
    tokenizers = {
        name: TextTokenizer.from_dir(GOLDEN / "ckpt" / name)
        for name in {case["ckpt"] for case in cases.values()}
    }
    checked = 0
    for case in cases.values():
        for text, ids in case.get("token_ids", []):
            assert tokenizers[case["ckpt"]].encode(text) == ids
            checked += 1
    assert checked > 20


def test_chat_strings_are_cut_by_position(tiny):
    text = "Hello there"
    whole = tiny.encode(f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n")
    role, ids = tiny.assistant_ids(text)
    assert role + ids == whole[:-5]
    assert len(role) == 3
    assert ids == tiny.encode(text)
    assert tiny.reference_ids(text) == ids
    assert tiny.instruct_ids(text) == tiny.encode(f"<|im_start|>user\n{text}<|im_end|>\n")


def test_byte_pairs_normal_form_and_added_tokens(tiny):
    vocab = json.loads((TINY / "vocab.json").read_text())
    assert tiny.encode("assistant") == [vocab["assistant"]]
    assert tiny.encode("e\u0301") == tiny.encode("\u00e9") == [vocab["Ã"], vocab["©"]]
    assert tiny.encode("<tts_pad>") == [tiny.added_tokens["<tts_pad>"]]


def test_sizes_of_tokens_are_the_bytes_of_the_text(tiny, dense):
    for tokenizer in (tiny, dense):
        for text in SAMPLES:
            written = text if "<" in text else tokenizer.normalize(text)  # pieces have their own
            sizes = map(tokenizer.token_size, tokenizer.encode(text))
            assert sum(sizes) == len(written.encode()), text
        assert list(map(tokenizer.token_size, tokenizer.encode("<tts_pad>"))) == [9]
    with pytest.raises(TextError, match="no id 99999"):
        tiny.token_size(99999)


@pytest.mark.parametrize("blank", ["", " ", "\n\t \u3000"])
def test_blank_text_is_refused(tiny, blank):
    for method in (tiny.assistant_ids, tiny.reference_ids, tiny.instruct_ids):
        with pytest.raises(TextError, match="is empty"):
            method(blank)
    incremental = tiny.incremental()
    incremental.push(blank)
    with pytest.raises(TextError, match="is empty"):
        incremental.finish()


@pytest.mark.parametrize("text", SAMPLES)
def test_text_in_pieces_gives_the_ids_of_the_whole(tiny, dense, text):
    for tokenizer in (tiny, dense):
        whole = tokenizer.assistant_ids(text)
        assert in_pieces(tokenizer, list(text)) == whole
        assert in_pieces(tokenizer, [text]) == whole
        for cut in range(len(text)):
            assert in_pieces(tokenizer, [text[:cut], "", text[cut:]]) == whole


def test_random_text_in_random_pieces_gives_the_ids_of_the_whole(tiny, dense):
    rng = random.Random(0)
    for _ in range(800):
        text = random_text(rng)
        if not text.strip():
            continue
        for tokenizer in (tiny, dense):
            pieces = random_pieces(text, rng, rng.choice([1, 3, 9]))
            assert in_pieces(tokenizer, pieces) == tokenizer.assistant_ids(text), pieces


def test_every_pair_of_boundary_characters_survives_a_cut(dense):
    characters = "aZ1 \n\r\t!/'<\u0301\u0338\u3099\u1100\u1161\u11a8각가か你=\u09c7\u09be\u0378ǅʰ"
    for first in characters:
        for second in characters:
            text = f"x{first}{second}y{second}{first}"
            assert in_pieces(dense, list(text)) == dense.assistant_ids(text)


def test_words_are_given_out_before_the_text_has_ended(tiny):
    incremental = tiny.incremental()
    given = [len(incremental.push(char)) > 0 for char in "one two, 3"]
    #                o      n      e      ' '   t      w      o      ,     ' '   3
    assert given == [False, False, False, True, False, False, False, True, True, True]


def test_role_waits_for_a_line_break_that_joins_the_template():
    # A vocabulary that merges two line breaks, as the released one does.
    vocab = json.loads((TINY / "vocab.json").read_text())
    merges = [
        tuple(line.split())
        for line in (TINY / "merges.txt").read_text().splitlines()[1:]
        if line.strip()
    ]
    added = {"<|im_start|>": 1000, "<|im_end|>": 1001}
    tokenizer = TextTokenizer({**vocab, "ĊĊ": 900}, [*merges, ("Ċ", "Ċ")], added)
    incremental = tokenizer.incremental()
    assert incremental.push("\n") == []
    assert incremental.role_ids == [1000, vocab["assistant"]]
    ids = incremental.push("word ")
    assert incremental.role_ids == [1000, vocab["assistant"], 900]
    assert (incremental.role_ids, ids + incremental.finish()) == tokenizer.assistant_ids("\nword ")


def test_vocabulary_without_the_word_assistant_keeps_the_positions():
    vocab = json.loads((TINY / "vocab.json").read_text())
    tokenizer = TextTokenizer(vocab, [], {"<|im_start|>": 1000, "<|im_end|>": 1001})
    assert in_pieces(tokenizer, "hi") == tokenizer.assistant_ids("hi")


def test_added_token_that_begins_another_is_found_longest_first():
    vocab = json.loads((TINY / "vocab.json").read_text())
    words = ["<|im_start|>", "<|im_end|>", "ab", "abcd", "xabyz", "bxx"]
    added = {word: 1000 + i for i, word in enumerate(words)}
    tokenizer = TextTokenizer(vocab, [], added)
    rng = random.Random(1)
    for _ in range(300):
        text = "x" + "".join(rng.choice(["ab", "c", "d", "x", "yz", "y", " "]) for _ in range(8))
        assert in_pieces(tokenizer, list(text)) == tokenizer.assistant_ids(text), text


def test_surrogate_pairs_are_joined_across_pieces(tiny):
    assert tiny.encode("\ud83d\ude00") == tiny.encode("😀")
    whole = tiny.assistant_ids("hi 😀 there")
    assert in_pieces(tiny, ["hi \ud83d", "", "\ude00 there"]) == whole
    with pytest.raises(TextError, match="UTF-16"):
        tiny.assistant_ids("a\ud83d")
    incremental = tiny.incremental()
    incremental.push("a\ud83d")
    with pytest.raises(TextError, match="UTF-16"):
        incremental.push("b")
    incremental = tiny.incremental()
    incremental.push("a\ud83d")
    with pytest.raises(TextError, match="UTF-16"):
        incremental.finish()


def test_ended_text_takes_no_more(tiny):
    incremental = tiny.incremental()
    incremental.push("hi")
    incremental.finish()
    with pytest.raises(TextError, match="ended"):
        incremental.push("more")
    with pytest.raises(TextError, match="ended"):
        incremental.finish()


def test_pieces_and_texts_must_be_strings(tiny):
    with pytest.raises(TextError, match="bytes"):
        tiny.incremental().push(b"hi")
    with pytest.raises(TextError, match="int"):
        tiny.assistant_ids(5)


def test_work_grows_in_step_with_the_text(tiny):
    def seconds(repeats):
        text = "The quick brown fox jumps over 12 dogs. " * repeats
        start = time.process_time()
        in_pieces(tiny, text)
        return time.process_time() - start

    seconds(10)
    # Sixteen times the text; re-reading all of it for every piece would take 256 times as long.
    assert seconds(1600) < 64 * max(seconds(100), 0.01)


def test_normal_form_of_a_stable_prefix_never_changes():
    rng = random.Random(2)
    marks = "\u0301\u0323\u0338\u3099\u09be\u1161\u11a8\u0f71\u0f72\u0f73"
    starters = "aeo=<> .1か가\u1100각\u09c7é你"
    for _ in range(3000):
        text = "".join(rng.choice(starters + marks) for _ in range(rng.randint(0, 8)))
        more = "".join(rng.choice(starters + marks) for _ in range(3))
        cut = stable_length(text)
        parts = [unicodedata.normalize("NFC", part) for part in (text[:cut], text[cut:] + more)]
        assert "".join(parts) == unicodedata.normalize("NFC", text + more)
    assert stable_length("word ") == 5
    assert stable_length("word") == 3


def test_tokenizer_json_gives_the_same_ids(tiny, tmp_path):
    decoder = json.loads((TINY / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    merges = (TINY / "merges.txt").read_text().splitlines()[1:]
    content = {
        "added_tokens": [{**token, "id": int(id_)} for id_, token in decoder.items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated"},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": json.loads((TINY / "vocab.json").read_text()),
            "merges": [line for line in merges if line],
        },
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    read = TextTokenizer.from_dir(tmp_path)
    for text in SAMPLES:
        assert read.encode(text) == tiny.encode(text)

    # What the official processor saves after its loader has swapped the pattern.
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = MISTRAL_SPLIT
    path.write_text(json.dumps(content))
    swapped = TextTokenizer.from_dir(tmp_path)
    tables = (content["model"]["vocab"], [tuple(m.split()) for m in content["model"]["merges"]])
    want = TextTokenizer(*tables, tiny.added_tokens, MISTRAL_SPLIT)
    for text in SAMPLES:
        assert swapped.encode(text) == want.encode(text)

    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+"
    path.write_text(json.dumps(content))
    with pytest.raises(TextError, match="not a Qwen2 tokenizer"):
        TextTokenizer.from_dir(tmp_path)
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = QWEN2_SPLIT
    content["normalizer"]["type"] = "NFKC"
    path.write_text(json.dumps(content))
    with pytest.raises(TextError, match="not a Qwen2 tokenizer"):
        TextTokenizer.from_dir(tmp_path)
    del content["model"]
    path.write_text(json.dumps(content))
    with pytest.raises(TextError, match="model"):
        TextTokenizer.from_dir(tmp_path)


@pytest.mark.parametrize(
    ("version", "swapped"),
    [("4.57.3", True), (None, True), ("4.57.2", False), ("4.30.1", False), ("5.0.0", False)],
)
def test_exact_reference_splits_words_as_the_official_loader_does(version, swapped, tmp_path):
    directory = big_vocabulary(tmp_path / "big", version)
    default = TextTokenizer.from_dir(directory).encode("aB")
    reference = TextTokenizer.from_dir(directory, exact_reference=True).encode("aB")
    assert default == [100_000]
    assert (len(reference) == 2) == swapped


def test_small_vocabulary_is_never_swapped(tiny):
    exact = TextTokenizer.from_dir(TINY, exact_reference=True)
    assert all(exact.encode(text) == tiny.encode(text) for text in SAMPLES)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("vocab.json", None, "Cannot read .*vocab.json"),
        ("vocab.json", "{", "not valid JSON"),
        ("vocab.json", "[]", "not a table"),
        ("vocab.json", '{"a": 277}', "two tokens"),
        ("merges.txt", None, "Cannot read .*merges.txt"),
        ("merges.txt", "#version: 0.2\na b c\n", "not a pair"),
        ("merges.txt", "#version: 0.2\nzz qq\n", "does not fit"),
        ("tokenizer_config.json", None, "no token <|im_start|>"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "added_tokens_decoder"),
    ],
)
def test_broken_files_are_named(name, content, fault, tmp_path):
    directory = tmp_path / "ckpt"
    shutil.copytree(TINY, directory)
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises(TextError, match=fault.replace("|", r"\|")):
        TextTokenizer.from_dir(directory)


def test_added_token_with_unsupported_flags_is_refused(tmp_path):
    directory = tmp_path / "ckpt"
    shutil.copytree(TINY, directory)
    config = json.loads((directory / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"]["280"]["rstrip"] = True
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TextError, match="rstrip"):
        TextTokenizer.from_dir(directory)


def test_byte_order_marks_in_the_files_are_accepted(tiny, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (TINY / name).read_bytes())
    assert TextTokenizer.from_dir(tmp_path).encode("Hello there.") == tiny.encode("Hello there.")
