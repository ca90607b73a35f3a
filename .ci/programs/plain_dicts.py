"""Create batches from plain dicts, without any of the module's types."""

import json
from pathlib import Path

from claude_batches import Anthropic

client = Anthropic()

message = {"role": "user", "content": "Hello"}
params = {"model": "claude-opus-4-6", "max_tokens": 100, "messages": [message]}
client.messages.batches.create(requests=[{"custom_id": "hello", "params": params}])

requests = []
for number in range(10):
    request = {
        "custom_id": f"request-{number}",
        "params": {
            "model": "claude-opus-4-6",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": f"Is {number} a prime?"}],
        },
    }
    requests.append(request)
batch = client.messages.batches.create(requests=requests)

with Path("requests.jsonl").open(encoding="utf-8") as file:
    client.messages.batches.create(requests=(json.loads(line) for line in file))

batches = [batch]
print(sum(1 for batch in batches if batch.processing_status == "ended"))
