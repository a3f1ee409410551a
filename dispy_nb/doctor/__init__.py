"""`dispy doctor`: what keeps this machine and its nodes from working together, from both ends.

    machine, ports, firewall ── facts of this machine ──▶ judgelocal ─┐
    probing, visiting ── facts of each place ─▶ judgenode ────────────┼─▶ Finding ─▶ line, status
                                     its parts: judgegreeting, judgeprogram, judgerelay
    the node itself (nodeserver/services/diagnosis.py) ── Diagnosis ──┘

What measures decides nothing, and what judges measures nothing: a new check is a function that
looks, a function that says what that means, and a row in `examination.CHECKS`.
"""
