"""Hugging Face interop: directories of config.json, safetensors and tokenizer.json, read and written tensor by tensor."""
