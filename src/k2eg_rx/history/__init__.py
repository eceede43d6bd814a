"""What Kafka still keeps of PVs: found by time, told in order, and joined to the present without gap or duplicate.

- `moments`: the times that callers give, checked
- `selection`: which records belong to an interval of some PVs
- `merging`: their order, in bounded memory
- `reading`: the way from a moment to its updates
- `telling`: the steps of it, on a thread of its own or in virtual time
- `splice`: the past of a monitored PV, and then its live updates
"""
