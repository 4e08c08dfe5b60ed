// What every TypeScript client is made to do, whichever its version: connect, list, read, progress, elicitation, write.
// With CONFIRM in the environment it only calls a tool that writes, and the person says that: accept, decline or cancel,
// accept too late (impatient: so late that the client has given the call up), or the client leaves, or can't ask (none).
export const HOW = process.env.CONFIRM;

export async function answer() {
  if (HOW === undefined) return { action: "accept", content: { username: "ada", email: "ada@example.com" } };
  if (HOW === "leave") process.stdout.write('{"left":true}\n', () => process.exit(0));
  if (["late", "impatient", "leave"].includes(HOW)) await new Promise((resolve) => setTimeout(resolve, 3000));
  if (["decline", "cancel"].includes(HOW)) return { action: HOW };
  return { action: "accept", content: { confirm: true } };
}

const said = (result) => result.content[0].text;

// `call(params, options)` is the client's way to call a tool; `connect()` returns the protocol version agreed on.
export async function walk({ connect, list, call, close }) {
  const seen = { progress: [] };
  const late = setTimeout(() => process.exit(3), 20_000);
  try {
    seen.version = await connect();
    if (HOW !== undefined) {
      try {
        const options = HOW === "impatient" ? { timeout: 1000 } : {};
        const result = await call({ name: "write_note", arguments: { note: "x" } }, options);
        [seen.said, seen.is_error] = [said(result), result.isError ?? false];
      } catch (refused) {
        seen.died = String(refused);
      }
      if (HOW === "impatient") await new Promise((resolve) => setTimeout(resolve, 4000));
      console.log(JSON.stringify(seen));
      process.exit(0);
    }
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
