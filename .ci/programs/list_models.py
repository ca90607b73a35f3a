"""Choose a model by what the Models API says about it."""

from __future__ import annotations

from claude_batches import Anthropic, ModelInfo

client = Anthropic()
models: list[ModelInfo] = list(client.models.list(limit=100))
models.sort(key=lambda model: model.created_at, reverse=True)
for model in models:
    print(f"{model.id:40} {model.display_name:30} {model.created_at:%Y-%m-%d}")

newest: ModelInfo = client.models.retrieve(models[0].id)
print(newest.display_name.upper(), newest.max_tokens)
