"""Handle the errors that a create and a download may raise."""

from __future__ import annotations

import logging
import sys
import time

import claude_batches
from claude_batches import Anthropic, MessageBatch, Request

logger = logging.getLogger(__name__)


def create(client: Anthropic, requests: list[Request]) -> MessageBatch | None:
    try:
        return client.messages.batches.create(requests=requests)
    except claude_batches.BatchMayExistError as error:
        for candidate in error.candidates or []:
            logger.warning("this may be the batch: %s", candidate.id)
    except claude_batches.RateLimitError as error:
        seconds = float(error.headers.get("retry-after", "60"))
        time.sleep(seconds)
    except claude_batches.AuthenticationError:
        sys.exit("The API key is missing or wrong.")
    except claude_batches.APIStatusError as error:
        logger.error("%d %s %s", error.status_code, error.type, error.request_id)
        if error.status_code >= 500:
            raise
    except claude_batches.APIConnectionError as error:
        logger.error("%s, caused by %r", error.message, error.__cause__)
    return None


def count(client: Anthropic, batch_id: str) -> int:
    try:
        return sum(1 for _ in client.messages.batches.results(batch_id))
    except claude_batches.IncompleteResultsError as error:
        return error.received
    except (claude_batches.APIError, ValueError) as error:
        raise SystemExit(str(error)) from error
