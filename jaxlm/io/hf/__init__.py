"""Hugging Face interop: config.json, safetensors and tokenizer.json, read and written tensor by tensor."""
