"""The twins: what each kernel computes, written plainly in NumPy, slowly, and independently of the compiled code.

They take the arguments of their kernels and follow the same order of float32 operations, so that results are equal
bit for bit.  They check nothing, and nothing but tests and `registry.py` imports them.
"""
