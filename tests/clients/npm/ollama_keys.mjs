// Asks a server that wants keys with a right one, none, a wrong one and one for another model, through ollama-js.
import { Ollama } from 'ollama'
import { failing } from './common.mjs'

const [host, key, other] = process.argv.slice(2)
const messages = [{ role: 'user', content: 'hi' }]
const client = (key) => new Ollama({ host, headers: key ? { Authorization: `Bearer ${key}` } : {} })
const failed = failing((error) => ({ message: error.message, status: error.status_code }))

const out = {}
const known = client(key)
out.list = (await known.list()).models.map((model) => model.name)
out.chat = (await known.chat({ model: 'chain', messages })).message.content
out.stream = ''
for await (const piece of await known.chat({ model: 'chain', messages, stream: true })) {
  out.stream += piece.message.content
}
out.embed = (await known.embed({ model: 'bert', input: 'hi' })).embeddings[0].length
out.none = await failed(client('').chat({ model: 'chain', messages }))
out.wrong = await failed(client('sk-none').chat({ model: 'chain', messages, stream: true }))
out.wrong_list = await failed(client('sk-none').list())
out.others_list = (await client(other).list()).models.map((model) => model.name)
out.other = await failed(client(other).chat({ model: 'demo', messages }))
out.own = await failed(client(other).chat({ model: 'chain', messages }))
out.pull = await failed(known.pull({ model: 'nobody' }))
out.delete = await failed(known.delete({ model: 'chain' }))
console.log(JSON.stringify(out))
