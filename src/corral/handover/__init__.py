"""One server taking the place of another without a model being unloaded or a connection refused.

- **way**: the connection between the two, for messages with a socket each where one is wanted (`passing`).
- **lent**: listening sockets that the old server gave and takes back when the new one goes away too early (`give`).
- **taken**: what the new server has of the old one (`take`).
- **held**: answers that the old server still relays, by model; the new one leaves their engines alone.

    take.take_over ─▶ POST /control/handover ─▶ give.GivingOver.prepare ─▶ state directory free ─▶ give
         new server has sockets, state, engines ◀─ waiting connections, held as it shrinks ◀─ until_answered
"""
