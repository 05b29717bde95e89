// Asks a server at the given address whatever OpenAI's client can, with one key, and prints what came as JSON.
import OpenAI from 'openai'
import { failing, gathered } from './common.mjs'

const [baseURL, apiKey, other] = process.argv.slice(2)
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
const messages = [{ role: 'user', content: 'hi' }]
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const tools = [{ type: 'function', function: { name: 'weather', description: 'The weather', parameters } }]
const failed = failing((error) => {
  const { message, status, code, param } = error
  return { kind: error.constructor.name, message, status, code, param, hint: error.error?.hint, body: error.error }
})

const out = {}
out.models = (await gathered(await client.models.list())).map((model) => model.id)
out.model = await client.models.retrieve('chain')
out.chat = await client.chat.completions.create({ model: 'chain', messages })
out.stream = await gathered(
  await client.chat.completions.create({
    model: 'chain', messages, stream: true, stream_options: { include_usage: true },
  }),
)
out.completion = await client.completions.create({ model: 'chain', prompt: 'x', max_tokens: 3 })
out.several = (await client.chat.completions.create({ model: 'chain', messages, n: 2 })).choices
out.several_streamed = (await client.chat.completions.stream({ model: 'chain', messages, n: 2 }).finalChatCompletion()).choices
out.tools = (await client.chat.completions.create({ model: 'caller', messages, tools })).choices[0]
const forced = {
  model: 'demo', messages, temperature: 0, max_tokens: 300, tool_choice: { type: 'function', function: { name: 'weather' } },
  tools: [{ type: 'function', function: {
    name: 'weather',
    parameters: { ...parameters, properties: { city: { enum: ['Oslo'] } }, additionalProperties: false },
  } }],
}
out.forced = (await client.chat.completions.create(forced)).choices[0]
out.streamed_tools = (await client.chat.completions.stream({ ...forced }).finalChatCompletion()).choices[0]
// The client's own loop: it calls the function here, sends the result and gets the answer to that.
const runner = client.chat.completions.runTools({
  model: 'caller', messages,
  tools: [{ type: 'function', function: {
    name: 'weather', description: 'The weather', parameters, parse: JSON.parse, function: ({ city }) => `sun in ${city}`,
  } }],
})
out.run = { text: await runner.finalContent(), result: await runner.finalFunctionToolCallResult() }
out.embedding = await client.embeddings.create({ model: 'bert', input: ['hi', 'there'] })
out.floats = await client.embeddings.create({ model: 'bert', input: 'hi', encoding_format: 'float' })
out.response = await client.responses.create({ model: 'chain', input: 'hi' })
out.kept = await client.responses.retrieve(out.response.id)
out.response_stream = await gathered(
  await client.responses.create({
    model: 'chain', input: 'and?', stream: true, previous_response_id: out.response.id,
  }),
)
out.unknown = await failed(client.chat.completions.create({ model: 'chian', messages }))
out.unknown_stream = await failed(client.chat.completions.create({ model: 'chian', messages, stream: true }))
out.bad = await failed(client.chat.completions.create({ model: 'chain', messages, num_ctx: 'much' }))
const asking = (apiKey, model) =>
  failed(new OpenAI({ baseURL, apiKey, maxRetries: 0 }).chat.completions.create({ model, messages }))
out.wrong_key = await asking('sk-none', 'chain')
out.narrow_key = await asking(other, 'demo')
out.own_model = await asking(other, 'chain')
out.limited = await asking(other, 'chain')
const stream = await client.chat.completions.create({ model: 'endless', messages, stream: true })
out.aborted = ''
for await (const piece of stream) {
  out.aborted += piece.choices[0]?.delta.content ?? ''
  if (out.aborted) stream.controller.abort()
}
// Its only slot is free: what is left of that answer takes longer than this waits.
out.after = await client.chat.completions.create({ model: 'endless', messages, max_tokens: 2 }, { timeout: 10_000 })
console.log(JSON.stringify(out))
