"""List the batches, page by page and one by one, and cancel those that still run."""

from datetime import datetime, timedelta, timezone

from claude_batches import Anthropic, MessageBatch

client = Anthropic(timeout=30.0, max_retries=5)


def is_old(batch: MessageBatch) -> bool:
    return batch.created_at < datetime.now(timezone.utc) - timedelta(hours=1)


for batch in client.messages.batches.list(limit=20):
    print(batch.id, batch.created_at)
    print(batch.created_at.isoformat(), batch.request_counts.succeeded)
    if batch.ended_at is not None:
        print(batch.ended_at - batch.created_at)
    if batch.processing_status == "in_progress" and is_old(batch):
        canceled = client.messages.batches.cancel(batch.id)
        print(canceled.cancel_initiated_at)

page = client.messages.batches.list(limit=100)
while page.has_next_page():
    page = page.get_next_page()
    print(len(page.data), page.data[0].id.upper())
deleted = client.messages.batches.delete("msgbatch_123")
print(deleted.id)
