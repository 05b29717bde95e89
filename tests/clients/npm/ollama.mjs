// Asks a server at the given address whatever ollama-js can, and prints what came as JSON.
import { Ollama } from 'ollama'
import { failing, gathered } from './common.mjs'

const [host, demo, tools, think, bert, endless] = process.argv.slice(2)
const ollama = new Ollama({ host })
const messages = [{ role: 'user', content: 'hi' }]
const tool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}
const failed = failing((error) => ({ message: error.message, status: error.status_code }))

const out = {}
out.list = (await ollama.list()).models.map((model) => model.name)
out.version = (await ollama.version?.())?.version ?? null
out.chat = await ollama.chat({ model: demo, messages, options: { num_predict: 3 } })
out.stream = await gathered(await ollama.chat({ model: demo, messages, stream: true, options: { num_predict: 3 } }))
out.generate = await ollama.generate({ model: demo, prompt: 'hi', options: { num_predict: 3 } })
out.again = await ollama.generate({
  model: demo, prompt: 'hi', context: out.generate.context, options: { num_predict: 3 },
})
out.tools = (await ollama.chat({ model: tools, messages, tools: [tool] })).message.tool_calls
out.thinking = (await ollama.chat({ model: think, messages, think: true })).message
out.embed = await ollama.embed({ model: bert, input: ['hi', 'there'] })
out.show = await ollama.show({ model: demo })
out.ps = (await ollama.ps()).models.map((model) => model.name)
out.unknown = await failed(ollama.chat({ model: 'nobody', messages }))
out.aborted = await failed(
  (async () => {
    const stream = await ollama.generate({ model: endless, prompt: 'x', stream: true })
    for await (const piece of stream) if (piece.response) stream.abort()
  })(),
)
console.log(JSON.stringify(out))
