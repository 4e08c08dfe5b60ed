// What every TypeScript client is made to do, whichever its version: connect, list, read, progress, elicitation, write.
export const ANSWER = { action: "accept", content: { username: "ada", email: "ada@example.com" } };

const said = (result) => result.content[0].text;

// `call(params, options)` is the client's way to call a tool; `connect()` returns the protocol version agreed on.
export async function walk({ connect, list, call, close }) {
  const seen = { progress: [] };
  const late = setTimeout(() => process.exit(3), 20_000);
  try {
    seen.version = await connect();
    seen.tools = (await list()).tools.map((tool) => tool.name);
    seen.read = said(await call({ name: "test_simple_text", arguments: {} }));
    const onprogress = ({ progress }) => seen.progress.push(progress);
    await call({ name: "test_tool_with_progress", arguments: {} }, { onprogress });
    seen.elicited = said(await call({ name: "test_elicitation", arguments: { message: "Who?" } }));
    try {
      seen.written = said(await call({ name: "write_note", arguments: { note: "x" } }));
    } catch (refused) {
      seen.refused = String(refused);
    }
    seen.after = said(await call({ name: "test_simple_text", arguments: {} }));
    await close();
  } catch (fatal) {
    seen.died = String(fatal?.stack ?? fatal);
  }
  clearTimeout(late);
  console.log(JSON.stringify(seen));
}
