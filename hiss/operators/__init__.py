"""What operators see over HTTP: metrics, health, the newest pictures. A process of its own, which is a client of the
data process. Its packages are the extra `http`; none of them is imported before `app`, `metrics` or `picture` is.
"""
