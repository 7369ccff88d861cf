"""fp16, bf16 and int8: what runs in which type, and how far it may move the rollout."""
