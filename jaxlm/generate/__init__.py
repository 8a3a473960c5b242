"""Floor 3: logits -> token, and the prefill + decode loop over a KV cache. Pure: callers jit, tokenise and print."""
