"""Who calls, and what they may do: API keys, tokens of an identity provider, scopes, quotas, and the audit log.

identity.py     who a call is from; `current()` is what services ask
scopes.py       which scope each method wants: one table of all of them
api_key.py      what a key looks like, and its digest         key_file.py   keys on disk, hashed
key_ring.py     from a key to an identity; follows the file   key_admin.py  create, list and revoke
tokens.py       from a JWT to an identity                     jwks.py       the identity provider's public keys
quotas.py       what a tenant has used                        audit.py      who did what, one JSON line a call
guard.py        the interceptor in front of all services      settings.py   the options, and a guard made of them
"""
