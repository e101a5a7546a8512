"""The small talker fits its tokenizer and its place in the repository."""

import jax
import pytest

from experiments.nano.talker_recipe import NANO_TALKER_TRAINER, nano_talker
from experiments.nano.text_vocabulary import TextIds, learn_merges, save_text, text_ids
from experiments.nano.tokenizer_recipe import nano_tokenizer
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig

TEXT = TextIds(1024, 1000, 1001, 1002, 1003, 1004, 1005)


def size(config):
    return sum(x.size for x in jax.tree.leaves(abstract(TTSModel, config)[1]))


@pytest.mark.parametrize(("books", "entries", "most"), [(16, 2048, 22e6), (22, 256, 9.65e6)])
def test_it_fits_the_codes_and_the_repository(books, entries, most):
    config = nano_talker(nano_tokenizer(books, entries), TEXT, ("english", "spanish"))
    talker = config.talker
    assert (talker.codebooks, talker.codebook_size) == (books, entries)
    assert 0.5 * most < size(config) < most
    ids = [talker.pad_id, talker.bos_id, talker.eos_id, talker.think_id, talker.nothink_id]
    ids += [talker.think_bos_id, talker.think_eos_id, *(i for _, i in talker.languages)]
    assert len(set(ids)) == len(ids)
    assert all(talker.codebook_size <= i < talker.vocab_size for i in ids)


def test_it_is_a_checkpoint_configuration():
    config = nano_talker(nano_tokenizer(), TEXT)
    assert TTSConfig.from_hf(config.to_hf()) == config


def test_its_training_covers_every_part():
    task = TalkerTask(TalkerTaskConfig(nano_talker(nano_tokenizer(), TEXT)))
    groups, _ = jax.eval_shape(task.init, jax.random.key(0))
    assert set(groups) == set(NANO_TALKER_TRAINER.optimizers)


def test_its_text_files_give_its_ids(tmp_path):
    save_text(tmp_path)
    ids, text = text_ids(), TextTokenizer.from_dir(tmp_path)
    role, spoken = text.assistant_ids("Hé user")
    assert role[:2] == [ids.im_start, ids.assistant]
    # A letter beyond ASCII is two bytes; the words of the frame are single ids.
    assert len(spoken) == 5 and max(spoken) < ids.size
    assert len(set(vars(ids).values())) == 7


def test_presets_and_languages_have_ids_of_their_own():
    config = nano_talker(nano_tokenizer(), TEXT, ("english", "french"), ("ada", "bob"))
    talker = config.talker
    ids = [i for _, i in (*talker.speakers, *talker.languages)]
    ids += [talker.pad_id, talker.bos_id, talker.eos_id, talker.think_eos_id]
    assert len(set(ids)) == len(ids) and max(ids) < talker.vocab_size
    assert TTSConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(("letters", "wanted"), [(2, 4), (3, 3), (4, 2)])
def test_merges_make_tokens_of_several_letters_and_leave_the_frame_alone(tmp_path, letters, wanted):
    merges = learn_merges(["the the the the"], 20, letters)
    assert max(len("".join(pair)) for pair in merges) == letters
    save_text(tmp_path, merges)
    ids, text = text_ids(merges), TextTokenizer.from_dir(tmp_path)
    role, found = text.assistant_ids("the the")
    assert role[:2] == [ids.im_start, ids.assistant]
    assert len(found) == wanted and max(found) < ids.size
