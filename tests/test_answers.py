"""The two ways of answering agree on a trained classifier, and neither depends on how its rows are batched."""

from collections.abc import Iterator

import pytest
import torch

from peftbench.core.spec import Evaluation, Training
from peftbench.engine.base_model import Base
from peftbench.engine.generation import answer_rows
from peftbench.engine.phase_meter import Meter
from peftbench.engine.tokenization import Encoded, Encoder, encode_examples
from peftbench.engine.train import Trainer
from peftbench.methods import METHODS, Adapted
from peftbench.models import find
from peftbench.tasks import TASKS
from peftbench.tasks._splits import RowLimits, split

Trained = tuple[Base, Adapted, list[Encoded]]
TASK = TASKS["pocket_topic"]


@pytest.fixture(scope="module")
def trained() -> Iterator[Trained]:
    """The bundled model, fine-tuned on a task until it has learned it, and test rows."""
    base = Base(find("pocket"), "fp32")
    splits = split(TASK, {}, 256, 0, RowLimits(32, 96), root=None)
    encoder = Encoder(base.tokenizer, TASK.facts, 512)
    torch.manual_seed(0)
    full = METHODS["full"].function(base.model)
    asked = Training(num_train_epochs=1.25, eval_steps=1.0)
    trainer = Trainer(full, asked, 1e-3, "fp32", 0)
    trainer.fit(
        encode_examples(encoder, splits.train), encode_examples(encoder, splits.validation), Meter(), lambda _: None
    )
    rows = encode_examples(encoder, splits.test)
    right = [row.target for row in rows]
    ranked = answers((base, full, rows), "rank")
    assert (
        sum(text == str(base.tokenizer.decode(ids[:-1])).strip() for text, ids in zip(ranked, right, strict=True)) > 72
    )
    yield base, full, rows
    base.restore()


def answers(trained: Trained, how: str, size: int = 32) -> list[str]:
    base, adapted, rows = trained
    asked = Evaluation.model_validate({"answer": how, "per_device_eval_batch_size": size})
    return answer_rows(adapted, base, TASK, asked, rows)


def test_generate_and_rank_agree(trained: Trained) -> None:
    pairs = list(zip(answers(trained, "generate"), answers(trained, "rank"), strict=True))
    assert sum(one == other for one, other in pairs) >= 0.95 * len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["generate", "rank"])
def test_the_batch_size_changes_no_answer(trained: Trained, how: str) -> None:
    alone = answers(trained, how, 1)
    assert alone == answers(trained, how, 7)
    assert alone == answers(trained, how, 64)


def test_the_padding_side_of_the_tokenizer_changes_no_answer(trained: Trained) -> None:
    """Rows are padded by us, prompts on the left; what a tokenizer would do must not matter."""
    tokenizer, found = trained[0].tokenizer, []
    before = tokenizer.padding_side
    for side in ("left", "right"):
        tokenizer.padding_side = side
        encoder = Encoder(tokenizer, TASK.facts, 512)
        rows = [encoder(example) for example in split(TASK, {}, 256, 0, RowLimits(32, 40), root=None).test]
        found.append(answers((trained[0], trained[1], rows), "generate"))
    tokenizer.padding_side = before
    assert found[0] == found[1]
