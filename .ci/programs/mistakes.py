"""Mistakes that a type checker has to find: one on each marked line, none elsewhere."""

from claude_batches import Anthropic, MessageBatch, Request, Sandbox

client = Anthropic()
batches = client.messages.batches
Anthropic(api_kye="key")  # error
Anthropic(timeout="60")  # error
client.with_options(max_retires=3)  # error
print(client.message)  # error

batches.create(requests=["text"])  # error
batches.create(requests="text")  # error
batches.create(request=[])  # error
batches.create([])  # error
batches.retrieve("msgbatch_123", tiemout=3)  # error
batches.retrieve(123)  # error
batches.list(limit="3")  # error
batches.wait("msgbatch_123", poll_intervall=3)  # error
batches.wait("msgbatch_123", on_poll="show")  # error
client.messages.count_tokens(model="claude-opus-4-6")  # error
Sandbox(port="8080")  # error

request: Request = {"custom_id": "a", "prams": {}}  # error

for row in batches.results("msgbatch_123"):
    print(row.custom_ids)  # error
    print(row.result.typ)  # error
    print(row.result.message)  # error
    if row.result.type == "succeeded":
        print(row.result.message.contents)  # error
        print(row.result.error)  # error

for batch in batches.list():
    print(batch.processing_state)  # error
    print(batch.created_at.isofromat())  # error

for model in client.models.list():
    print(model.name)  # error


def show(batch: MessageBatch) -> int:
    return batch.id  # error
