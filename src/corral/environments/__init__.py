"""Engines that Corral installs: environments of their own, side by side, named by what is in them.

- A **variant** is what an engine is built for (cpu, cuda, rocm), and how to see whether an environment is that.
- A **lock** lists everything in an environment, each with its version and hashes. It comes with Corral, is made of an
  index's answer, or of a folder of wheels. Its hash with engine, variant and Python is the environment's **identity**.
- An **environment** is a virtual environment made where it will stay, `<data>/engines/<engine>/<identity>`, under a
  lock file. Its **record** is written last: one without a record is unfinished, and swept.
- The **shelf** is all environments of one engine, and which of them is current.

Data flow: a request → `resolve` makes its lock → `make` has pip (a `child`) fill an environment, checks what came and
puts it on the `shelf` → an engine's adapter asks the shelf for the current one at every start. Everything blocks.
"""
