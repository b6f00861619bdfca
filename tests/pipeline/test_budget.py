"""What a budget in money reserves for a call before it is sent: every picture that the model may be shown."""

from __future__ import annotations

import pytest

from manylens.errors import BudgetSpent, ModelError
from manylens.models.base import (
    Capabilities,
    ChooseRequest,
    CompleteRequest,
    JudgeRequest,
    LookRequest,
    Option,
    Request,
)
from manylens.models.caching import CachingModel
from manylens.models.metering import Account
from manylens.models.scripted import ScriptedModel
from manylens.pipeline.budget import Budget
from manylens.settings import Settings
from manylens.store.books import Spent
from manylens.writing import NameClusters

LOOK = LookRequest("suit", "a")
JUDGE = JudgeRequest("suit", "hearts", "", ("b", "c"), "a")
CHOOSE = ChooseRequest("suit", (Option("hearts", "", ("b",)), Option("spades", "", ("c", "d"))), "a")
ONE_BARE = ChooseRequest("suit", (Option("hearts", "", ("b",)), Option("spades")), "a")
WRITE = CompleteRequest("suit", NameClusters("suit", ()))


class Sees(ScriptedModel):
    """A picture takes up to 10,000 tokens, here a dollar; the words of a request less than a tenth of that."""

    def __init__(self, sees_exemplars: bool) -> None:
        super().__init__({"suit": {}})
        self._sees_exemplars = sees_exemplars

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(sees_exemplars=self._sees_exemplars, image_tokens=10_000, reply_tokens=0, text_tokens=0)


def budget(sees_exemplars: bool, usd: float) -> Budget:
    return Budget(Sees(sees_exemplars), Settings(budget_usd=usd, price_in=100, price_out=100))


@pytest.mark.parametrize(
    ("request_", "sees", "dollars"),
    [
        (LOOK, True, 1),
        (JUDGE, True, 3),
        (JUDGE, False, 1),
        (CHOOSE, True, 3),
        (CHOOSE, False, 1),
        (ONE_BARE, True, 1),
        (WRITE, True, 0),
    ],
)
def test_a_call_is_admitted_only_where_all_its_pictures_can_be_paid(
    request_: Request, sees: bool, dollars: int
) -> None:
    for usd, admitted in ((dollars + 0.2, 1), (max(dollars - 0.2, 0.001), 0)):
        account = budget(sees, usd)
        assert account.admit([request_], account.part(1.0)) == admitted, usd


def test_a_failed_call_is_charged_as_much_as_it_may_have_taken() -> None:
    account = budget(True, 100)
    account.charge(CHOOSE, ModelError("broken"))
    assert 3 < account.usd < 3.2


def test_making_a_budget_leaves_the_limits_of_a_run_as_they_are() -> None:
    model = CachingModel(Sees(True), run=None, account=Account())  # type: ignore[arg-type]  # not used here
    model.account.limit(Settings(budget_calls=0))
    Budget(model, Settings())
    with pytest.raises(BudgetSpent):
        model.account.send(Spent(1), save=False)
