"""Wait for a batch, with a line for each poll and a limit for the whole wait."""

import sys

from claude_batches import Anthropic, MessageBatch, WaitTimeoutError


def show(batch: MessageBatch) -> None:
    counts = batch.request_counts
    done = counts.succeeded + counts.errored + counts.canceled + counts.expired
    print(f"{done} of {done + counts.processing}", file=sys.stderr)


client = Anthropic().with_options(max_retries=5, timeout=60)
try:
    batch = client.messages.batches.wait(
        "msgbatch_123", poll_interval=10, timeout=3600, on_poll=show
    )
except WaitTimeoutError as error:
    if error.batch is not None:
        print(f"{error.batch.id} is still {error.batch.processing_status}.")
    sys.exit(1)
print(batch.ended_at, batch.results_url)
client.messages.batches.wait(batch.id, on_poll=lambda seen: print(seen.id))
