// Asks a served mix by OpenAI's client for Node and by LangChain.js; prints one line of JSON a case.
//
//     node clients.mjs BASE_URL CASE...
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { ChatOpenAI } from "@langchain/openai";
import { tool } from "@langchain/core/tools";
import { z } from "zod";

const [baseURL, ...wanted] = process.argv.slice(2);
const openai = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const langchain = new ChatOpenAI({
  model: "mix",
  apiKey: "any",
  maxRetries: 0,
  configuration: { baseURL },
});
const asked = { model: "mix", messages: [{ role: "user", content: "Who built it?" }] };
const Ship = z.object({ name: z.string(), kind: z.enum(["ferry", "tug"]) });
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const cases = {
  async whole() {
    const { data, response } = await openai.chat.completions.create(asked).withResponse();
    assert.equal(response.headers.get("x-automix-model"), data.automix.model);
    return { text: data.choices[0].message.content, usage: data.usage.total_tokens };
  },
  async streamed() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await openai.chat.completions.create({ ...asked, ...options }));
    const texts = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "");
    return { text: texts.join(""), usage: chunks.at(-1).usage.total_tokens };
  },
  async accumulated() {
    const final = await openai.chat.completions.stream(asked).finalChatCompletion();
    return { text: final.choices[0].message.content };
  },
  async tools() {
    const given = { ...asked, tools: [weather], parallel_tool_calls: true };
    const final = await openai.chat.completions.stream(given).finalChatCompletion();
    const message = final.choices[0].message;
    const calls = message.tool_calls;
    const results = calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "Sun." }));
    const messages = [...asked.messages, message, ...results]; // the answer goes back as it came
    const last = await openai.chat.completions.create({ ...given, messages });
    return {
      cities: calls.map((call) => JSON.parse(call.function.arguments).city),
      text: last.choices[0].message.content,
    };
  },
  async parsed() {
    const response_format = zodResponseFormat(Ship, "ship");
    const completion = await openai.chat.completions.parse({ ...asked, response_format });
    return completion.choices[0].message.parsed;
  },
  async models() {
    return (await collect(await openai.models.list())).map((model) => model.id);
  },
  async refused() {
    const errors = [];
    for (const wrong of [{ n: 2 }, { model: "nowhere" }]) {
      await assert.rejects(openai.chat.completions.create({ ...asked, ...wrong }), (error) => {
        errors.push([error.constructor.name, error.status, error.code]);
        return true;
      });
    }
    return errors;
  },
  async langchain() {
    const message = await langchain.invoke("Who built it?");
    const chunks = await collect(await langchain.stream("Who built it?"));
    return {
      text: message.text,
      streamed: chunks.map((chunk) => chunk.text).join(""),
      usage: message.usage_metadata.total_tokens,
    };
  },
  async langchain_tools() {
    const schema = z.object({ city: z.string() });
    const bound = langchain.bindTools([tool(() => "Sun.", { name: "weather", schema })]);
    const message = await bound.invoke("How is the weather?");
    const parts = await collect(await bound.stream("How is the weather?"));
    const whole = parts.reduce((sum, part) => sum.concat(part));
    return [message, whole].map((each) => each.tool_calls.map((call) => call.args.city));
  },
  async langchain_structured() {
    const found = {};
    for (const method of ["jsonSchema", "functionCalling", "jsonMode"]) {
      const structured = langchain.withStructuredOutput(Ship, { method, name: "ship" });
      found[method] = await structured.invoke("Which ship? Answer in JSON.");
    }
    return found;
  },
};

for (const name of wanted) console.log(JSON.stringify(await cases[name]()));
