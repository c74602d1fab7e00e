"""Responses kept in a file of JSON lines, so that an interrupted run generates only what is missing.

Each line holds `prompt_ids`, `response_ids`, `temperature` and `finish_reason`: the file is itself a training file (see `data`). A batch is
appended as a whole; a line that was cut off by an interruption is removed when the file is next opened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from hoarfrost.files import append_line
from hoarfrost.progress import progress_bar
from hoarfrost.training.responses import Request, Responder, Response, batches_of


class ResponseFile:
    """The lines of one file, found by prompt and temperature."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[tuple[tuple[int, ...], float], list[Response]] = defaultdict(list)
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                path.write_bytes(whole)
            for line in whole.decode().splitlines():
                record = json.loads(line)
                response = Response(tuple(record["response_ids"]), record["finish_reason"])
                self._kept[tuple(record["prompt_ids"]), record["temperature"]].append(response)

    def take(self, requests: Sequence[Request]) -> dict[int, Response]:
        """The responses at hand, by request index; a prompt that is asked twice needs two lines."""
        left = {key: list(responses) for key, responses in self._kept.items()}
        found = {}
        for request in requests:
            responses = left.get((request.prompt_ids, request.temperature))
            if responses:
                found[request.index] = responses.pop(0)
        return found

    def append(self, requests: Sequence[Request], responses: Sequence[Response]) -> None:
        lines = []
        for request, response in zip(requests, responses, strict=True):
            record = {
                "prompt_ids": request.prompt_ids,
                "response_ids": response.token_ids,
                "temperature": request.temperature,
                "finish_reason": response.finish_reason,
            }
            lines.append(json.dumps(record, separators=(",", ":")) + "\n")
            self._kept[request.prompt_ids, request.temperature].append(response)
        append_line(self.path, "".join(lines))


def generate_responses(
    new_responder: Callable[[], Responder], requests: Sequence[Request], path: Path, *, batch_size: int, seed: int
) -> list[Response]:
    """Responses to all requests, in their order; what `path` already holds is not generated again, and what is new is added to it.

    The responder is made only where there is something to answer.
    """
    file = ResponseFile(path)
    found = file.take(requests)
    missing = [request for request in requests if request.index not in found]
    num_tokens = sum(len(response.token_ids) for response in found.values())
    if missing:
        responder = new_responder()
        with progress_bar("responses", total=len(requests), completed=len(found)) as advance:
            for batch in batches_of(missing, batch_size, seed):
                responses = responder.answer(batch)
                file.append(batch, responses)
                found.update({request.index: response for request, response in zip(batch, responses, strict=True)})
                num_tokens += sum(len(response.token_ids) for response in responses)
                advance(len(batch), f"{num_tokens:,} tokens")
    return [found[request.index] for request in requests]
