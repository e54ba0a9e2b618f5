"""The public gRPC API: one file a service. Translates, checks and streams; decides nothing about what is computed
when.
"""
