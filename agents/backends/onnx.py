"""ONNX Runtime in torch's place: the graphs of `agents.formats.onnx`, with the bank's adapters as they are now.

As in `agents.policy_network`, instructions and texts are read once and cached, and only the answer token of each row
is computed for an agent. Runs on the CPU, with as many threads as torch has.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from agents.backends import require_answer_token
from agents.formats.onnx import graph_folder, quantised_folder
from agents.policy_network import PolicyNetwork
from agents.prefix_cache import PrefixCache, ReadText


class Onnx:
    """Answers as `network` does, with the adapters that its bank has at each answer.

    quantised: texts are read in int8 (`onnxruntime.quantization.quantize_dynamic`). Instructions and answers stay
    float32: with all in int8 the KL to float32 was ten times larger, and answers were no faster.
    UserError if the architecture cannot be written as ONNX, or if adapters act on more than the answer token.
    """

    is_batched = True

    def __init__(self, network: PolicyNetwork, quantised: bool = False, prefix_cache_mb: int = 64):
        require_answer_token(network, "ONNX Runtime")
        graphs = graph_folder(network)
        self.network = network
        self._reader = _session(graphs / "read.onnx")
        layers, two, heads, _, width = self._reader.get_inputs()[1].shape
        self._instructions = np.zeros((layers, two, heads, 0, width), np.float32)  # nothing is before them
        self._instructions = self._run_reader([network.instruction_ids])[0][:, :, :, 0]  # (L, 2, V, I, d)
        if quantised:
            del self._reader  # first, so that the next two lie in the memory that it leaves
            self._reader = _session(quantised_folder(network) / "read.onnx")
        self._answerer = _session(graphs / "answer.onnx")
        shape = (layers - network.first_layer, two, heads, width)
        self.cache = PrefixCache(self._read, shape, prefix_cache_mb << 20, most_blocks=1)

    def answer(self, texts: Sequence[str], adapters: np.ndarray) -> np.ndarray:
        """Logits (B, A), float32, of the action words after B texts; adapters (B,): rows of the bank, -1: bare base."""
        logits = np.empty((len(texts), len(self.network.action_ids)), np.float32)
        if not len(texts):
            return logits
        groups, group = np.unique(adapters, return_inverse=True)
        counts = np.bincount(group)
        order = np.argsort(group, kind="stable")
        place = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
        rows = np.zeros((len(groups), counts.max()), int)  # what is not filled answers the first text again
        rows[group[order], place] = order
        most = max(1, self.network.rows_at_once // len(groups))  # texts of each adapter at a time
        parts = np.array_split(rows, -(-rows.shape[1] // most), axis=1)
        answered = [self._answer(texts, part, groups) for part in parts]
        logits[order] = np.concatenate(answered, axis=1)[group[order], place]
        return logits + self.network.head_bias.numpy()

    def _answer(self, texts: Sequence[str], rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Logits (G, R, A) without the head's bias; rows: (G, R), which of the texts each of G adapters answers."""
        recalled = self.cache.recall([texts[row] for row in rows.flatten().tolist()])
        (block,) = recalled.blocks
        inputs = {
            "entering": recalled.entering.numpy(),
            "lengths": block.lengths.numpy(),
            "instructions": self._instructions[self.network.first_layer :],
            "texts": block.tokens.numpy(),
            "adapters": self._adapters(groups),
            "head": self.network.head.numpy(),
        }
        answers: np.ndarray = self._answerer.run(["logits"], inputs)[0]
        return answers.reshape(*rows.shape, -1)

    def _adapters(self, groups: np.ndarray) -> np.ndarray:
        """Rows (G, F) of the bank; a bare base is an adapter of zeros."""
        values = self.network.bank.values.numpy()
        if np.array_equal(groups, np.arange(len(values))):
            return values
        return np.where(groups[:, None] < 0, np.float32(0), values[groups])

    def _read(self, texts: Sequence[str]) -> list[ReadText]:
        return [self._read_one(text) for text in texts]

    def _read_one(self, text: str) -> ReadText:
        tokens = [*self.network.base.tokens(text), self.network.answer_id]
        self.network.reader.check_length(len(tokens))
        keys_values, entering = (torch.from_numpy(array) for array in self._run_reader([tokens]))
        return ReadText(keys_values[self.network.first_layer :, :, :, 0, :-1], entering[0, -1].clone())

    def _run_reader(self, ids: list[list[int]]) -> list[np.ndarray]:
        """Keys and values (L, 2, V, B, S, d), and the hidden states (B, S, D) that enter the adapted layers."""
        inputs = {"ids": np.array(ids, np.int64), "instructions": self._instructions}
        outputs: list[np.ndarray] = self._reader.run(["keys_values", "entering"], inputs)
        return outputs


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # torch needs the cores between two runs
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
