"""The same shapes with llama-cpp-python (llama.cpp), the engine for ternary models that installs from PyPI.

    gguf_file   random ternary Llama models as GGUF files, made here
    llama       one such model in llama.cpp, standing at a context
    compare     those and ours in turns

Needs the packages of the extra `bench`; only `gguf_file` and `llama` know them.
"""
