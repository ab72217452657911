// Copyright (c) 2026 The DockerSandboxApp authors
// GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Asks by the official SDKs for Node; the one argument is the address of the gateway. Prints what came, a line of JSON.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [base, token] = process.argv.slice(2);
const wish = "[simulate output=30 pace=1]";
const words = (text) => text.split("word").length - 1;
const told = {};

const claude = new Anthropic({ baseURL: base, apiKey: token, maxRetries: 0 });
const asked = { model: "claude-sonnet-4-5", max_tokens: 100, messages: [{ role: "user", content: wish }] };
const answer = await claude.messages.create(asked);
told.messages = [words(answer.content[0].text), answer.usage.output_tokens];
const final = await claude.messages.stream(asked).finalMessage();
told.messages_stream = [words(final.content[0].text), final.usage.output_tokens];

const gpt = new OpenAI({ baseURL: `${base}/v1`, apiKey: token, maxRetries: 0 });
const chat = { model: "gpt-6-sol", max_completion_tokens: 100, messages: [{ role: "user", content: wish }] };
const completion = await gpt.chat.completions.create(chat);
told.chat = [words(completion.choices[0].message.content), completion.usage.completion_tokens];
let text = "";
const usages = [];
for await (const chunk of await gpt.chat.completions.create({ ...chat, stream: true })) {
  text += chunk.choices[0].delta.content ?? "";
  if (chunk.usage) usages.push(chunk.usage);
}
told.chat_stream = [words(text), usages];
const response = await gpt.responses.create({ model: "gpt-6-sol", input: wish, max_output_tokens: 100 });
told.responses = [words(response.output_text), response.usage.output_tokens];
text = "";
let last = "";
for await (const event of await gpt.responses.create({ model: "gpt-6-sol", input: wish, max_output_tokens: 100, stream: true })) {
  if (event.type === "response.output_text.delta") text += event.delta;
  last = event.type;
}
told.responses_stream = [words(text), last];
try {
  await claude.messages.create({ ...asked, model: "bad model" });
} catch (error) {
  told.messages_model = [error.status, error.constructor.name];
}
console.log(JSON.stringify(told));
