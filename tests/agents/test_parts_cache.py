"""Texts in parts: the answer token sees each part as if it had been read alone, in any company."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from agents import prefix_cache
from agents.backends import BACKENDS, open_backend
from agents.codecs.codec import PlainCodec
from agents.codecs.forage import ForageCodec
from agents.parts_cache import cut
from agents.policy import Policy, make_policy
from agents.policy_network import PolicyNetwork
from agents.types import AdapterConfig, ModelConfig, UserError

TEXTS = [
    " food two north, rock north, home west",
    " home",
    " rock north, food here",
    " food two north, home",
    " rock north, food here, home west, home south, food was north west",
]
NEAR = {"rtol": 1e-4, "atol": 1e-4}


class InParts(ForageCodec):
    part_end = ","


def policy_in_parts(tiny_model, agents: int = 4, layers: int = 2, **model) -> Policy:
    policy = make_policy(
        ModelConfig(name=str(tiny_model), **{"dtype": "float32"} | model),
        AdapterConfig(rank=2, top_layers=layers),
        InParts(3),
        agents,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    values = policy.network.bank.values
    values += 0.3 * torch.randn(values.shape, generator=generator).to(values.device)
    return policy


@pytest.fixture
def network(tiny_model) -> PolicyNetwork:
    return policy_in_parts(tiny_model).network


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (" a, b", [" a,", " b"]),
        (" a", [" a"]),
        (" a, b,", [" a,", " b,"]),
        (" a,, b", [" a,", ",", " b"]),
        ("", [""]),
        (" ", [" "]),
    ],
)
def test_a_text_is_cut_behind_each_end(text, parts):
    assert cut(text, ",") == parts


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fast_logits_equal_plain_logits_for_every_agent(tiny_model, layers):
    network = policy_in_parts(tiny_model, layers=layers).network
    groups = torch.tensor([2, 0, 3, 1])
    fast = network.action_logits(TEXTS * 4, groups).view(4, len(TEXTS), 5)
    for agent, answers in zip(groups.tolist(), fast, strict=True):
        for text, logits in zip(TEXTS, answers, strict=True):
            torch.testing.assert_close(logits, network.plain_logits(text, agent), **NEAR)
    assert (fast[0] - fast[1]).abs().max() > 0.1


@torch.no_grad()
def test_the_bare_base_answers_as_transformers_does_with_a_mask_and_positions_of_our_own(network, tiny_model):
    """One pass over instructions, parts and answer token; a part sees the instructions and itself alone."""
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    front, base = network.instruction_ids, network.base
    for text, ours in zip(TEXTS, network.action_logits(TEXTS, None), strict=True):
        parts = [base.tokens(part) for part in cut(text, ",")]
        number = [0] * len(front) + [i for i, part in enumerate(parts, 1) for _ in part] + [-1]
        part = torch.tensor(number)
        sees = (part[:, None] == part) | (part == 0) | (part[:, None] == -1)
        sees &= torch.ones_like(sees).tril()
        mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
        begin = [0] * (len(parts) - 1) + [max(map(len, parts[:-1]), default=0)]  # the last behind the longest
        behind = [first + i for first, some in zip(begin, parts, strict=True) for i in range(len(some))]
        places = [*range(len(front)), *(len(front) + i for i in [*behind, behind[-1] + 1])]
        ids = torch.tensor([[*front, *(i for some in parts for i in some), network.answer_id]])
        out = theirs(ids, attention_mask=mask[None, None], position_ids=torch.tensor([places])).logits[0, -1]
        torch.testing.assert_close(ours, out[network.action_ids], **NEAR)


def test_only_which_part_is_the_last_matters_of_their_order(network):
    texts = [
        " rock, food here, home",
        " food here, rock, home",
        " home, rock, food here",
        " rock, food here, home west",
    ]
    one, same, *others = network.action_logits(texts, None)
    torch.testing.assert_close(one, same, **NEAR)
    assert all((one - other).abs().max() > 1e-3 for other in others)


def test_a_text_of_one_part_is_read_as_a_whole_one(network, tiny_model):
    whole = PolicyNetwork(network.base, network.bank, ForageCodec(3))
    torch.testing.assert_close(network.action_logits([" food north"], None), whole.action_logits([" food north"], None))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_of_a_text_is_the_same_to_the_last_bit_in_any_order_and_company(tiny_model, dtype, processor):
    memory = policy_in_parts(tiny_model, 1, dtype=dtype).network.cache
    texts = [", ".join([" food" + " north" * n, *m]) for n in range(4) for m in ([], ["two"], ["home"], ["a", "b"])]
    rng, known = np.random.default_rng(0), {}
    for size in (1, 16, 2, 3, 5, 7, 13, 16):
        memory.clear()
        for first in range(0, 16, size):
            company = [texts[i] for i in rng.permutation(16)[first : first + size]]
            recalled = memory.recall(company)
            (block,) = recalled.blocks
            for row, text in enumerate(company):
                read = block.tokens[..., row, : block.lengths[row], :], recalled.entering[row]
                before = known.setdefault(text, read)
                assert all(torch.equal(now, then) for now, then in zip(read, before, strict=True))
    assert len(known) == 16


def test_a_part_is_read_once_and_texts_are_counted(network, monkeypatch):
    read, asked = [], network.reader.read_parts
    monkeypatch.setattr(
        network.reader, "read_parts", lambda tokens, places: read.extend(tokens) or asked(tokens, places)
    )
    network.cache.take_counts()
    network.action_logits(TEXTS[:3], None)
    assert len(read) == 5, "rock north is in two of them"
    network.action_logits(TEXTS[3:], None)
    assert len(read) == 10, "a last part that stands elsewhere is another one"
    assert network.cache.take_counts() == (5, 5)
    network.features(TEXTS)
    assert network.cache.take_counts() == (5, 0)
    assert len(network.cache) == 5
    assert network.cache.latest(2) == TEXTS[3:]
    token = network.cache._parts._arena[:, :, :, 0].numel()
    assert network.cache.bytes_used == 4 * (sum(map(len, read)) * token + 5 * network.width)


def test_answers_do_not_depend_on_what_was_remembered(network):
    """Not even where parts are forgotten between a text's first reading and its next."""
    calm = network.action_logits(TEXTS, torch.tensor([0]))
    forgetful = PolicyNetwork(network.base, network.bank, InParts(3), prefix_cache_mb=0)
    for _ in range(2):
        for row, text in enumerate(TEXTS):
            answer = forgetful.action_logits([text], torch.tensor([0]))[0]
            torch.testing.assert_close(answer, calm[row], **NEAR)
    assert forgetful.cache.bytes_used < network.cache.bytes_used


def test_new_texts_are_read_together_and_nothing_twice_though_there_is_no_room(network, monkeypatch):
    forgetful = PolicyNetwork(network.base, network.bank, InParts(3), prefix_cache_mb=0)
    calls, asked = [], forgetful.reader.read_parts
    monkeypatch.setattr(forgetful.reader, "read_parts", lambda tokens, p: calls.append(len(tokens)) or asked(tokens, p))
    monkeypatch.setattr("agents.parts_cache.ROWS_AT_ONCE", 2)
    forgetful.action_logits(TEXTS, None)
    assert calls == [5, 5], "first all parts but the last of each text, then the last ones, which stand behind them"


@pytest.mark.parametrize("text", [" ", ",", " home,", ",,"])
def test_a_text_with_hardly_anything_in_it_is_read(network, text):
    torch.testing.assert_close(network.action_logits([text], None)[0], network.plain_logits(text, None), **NEAR)


def test_only_so_many_texts_are_remembered(network, monkeypatch):
    monkeypatch.setattr("agents.parts_cache.MOST_TEXTS", 3)
    network.action_logits(TEXTS, None)
    assert network.cache.latest(9) == TEXTS[2:]


def test_gradients_are_those_of_the_plain_way(network):
    bank, groups = network.bank, torch.arange(4)
    with bank.gathering(slice(0, 4)) as ours:
        network.action_logits(TEXTS * 4, groups)[:, 1].square().sum().backward()
        ours = ours.clone()
    step, rng = 1e-2, torch.Generator().manual_seed(1)
    along = torch.randn(bank.values.shape, generator=rng)
    along /= along.norm(dim=1, keepdim=True)

    def losses(values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network.action_logits(TEXTS * 4, groups, values)[:, 1].view(4, -1).double().square().sum(1)

    slope = (losses(bank.values + step * along) - losses(bank.values - step * along)) / (2 * step)
    torch.testing.assert_close((ours * along).sum(1).double(), slope, rtol=0.02, atol=0.02)


def test_texts_of_about_one_length_may_be_asked_about_together(network, monkeypatch):
    bank, groups, found = network.bank, torch.arange(4), []
    texts = [text for shift in range(4) for text in TEXTS[shift:] + TEXTS[:shift]]
    for fewest in (1000, 5):
        monkeypatch.setattr(prefix_cache, "FEWEST_ROWS", fewest)
        with bank.gathering(slice(0, 4)) as gradients:
            logits = network.action_logits(texts, groups)
            logits.square().sum().backward()
            found.append((logits.detach(), gradients.clone()))
    assert len(network.cache.recall(texts).blocks) == 4
    (one, its_gradient), (other, other_gradient) = found
    torch.testing.assert_close(other, one, **NEAR)
    torch.testing.assert_close(other_gradient, its_gradient, rtol=1e-3, atol=1e-4 * float(its_gradient.abs().max()))


def test_features_are_the_answer_tokens_hidden_state_below_the_adapters(network):
    seen = []
    hook = network.base.decoder.layers[network.first_layer].register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    network.plain_logits(TEXTS[0], None)
    hook.remove()
    torch.testing.assert_close(network.features(TEXTS[:1])[0], seen[-1][0, -1], **NEAR)


def test_on_another_device_come_the_same_answers_and_gradients(tiny_model, device):
    found = []
    for where in ("cpu", device):
        network = policy_in_parts(tiny_model, device=where).network
        with network.bank.gathering(slice(0, 4)) as gradients:
            logits = network.action_logits(TEXTS * 4, torch.arange(4))
            logits[:, 1].sum().backward()
        found.append((logits.detach(), network.features(TEXTS), gradients.cpu().clone()))
    for here, there in zip(*found, strict=True):  # small gradients are what is left of large sums
        torch.testing.assert_close(there, here, rtol=1e-3, atol=2e-4 * float(here.abs().max()))


@pytest.mark.parametrize("name", BACKENDS)
def test_no_other_backend_is_opened(network, name):
    with pytest.raises(UserError, match="read in parts; only torch"):
        open_backend(name, network)


def test_adapters_on_the_text_are_refused(tiny_model):
    config = AdapterConfig(rank=2, top_layers=2, tokens="text")
    with pytest.raises(UserError, match=r"adapter.tokens = 'text': must be 'answer' with a codec whose texts are read"):
        make_policy(ModelConfig(name=str(tiny_model)), config, InParts(3), 1, seed=0)


def test_layers_that_are_not_computed_here_are_refused(tiny_model, theirs_only):
    with pytest.raises(UserError, match="texts are read in parts only through layers that are computed here"):
        policy_in_parts(tiny_model)


def test_an_end_that_is_no_text_is_refused(tiny_model):
    class Wrong(PlainCodec):
        action_words = ("left", "right")
        part_end = 7

    with pytest.raises(UserError, match=r"codec.part_end = 7: must be text"):
        make_policy(ModelConfig(name=str(tiny_model)), AdapterConfig(rank=2, top_layers=2), Wrong(None), 1, seed=0)
