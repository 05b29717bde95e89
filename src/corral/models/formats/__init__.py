"""What model files say about themselves: GGUF and safetensors headers, read bounded, and files that are neither."""
