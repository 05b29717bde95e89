"""The screen of `corral top`: what the server does now, drawn anew every second, and keys that act on it.

live
    `api_live.Live`, the server at one moment; asked for once a second, and at once when an event comes.
feed
    the threads that ask: for the live picture, the event log, an engine's log. What they hear is posted to the screen.
view
    everything that the screen shows: the last live picture, what was lost, the cursor, the order, a question.
line, span
    a line of the screen is spans, each a text with the name of its style. What a view looks like is a pure function to
    lines, so that a test can read a screen as text.
pane
    the widget that shows lines, and writes only those that changed.

feed (threads) ──▶ view ──▶ lines (pure) ──▶ pane (Textual) ──▶ the terminal; keys ──▶ feed, view
"""
