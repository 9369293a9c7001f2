"""Adapters and agents in the files of others: PEFT, llama.cpp, ONNX."""
