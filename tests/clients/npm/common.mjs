// What the scripts share.
export const gathered = async (stream) => {
  const pieces = []
  for await (const piece of stream) pieces.push(piece)
  return pieces
}

// What an asking failed with, as `shown` has it; null where it did not.
export const failing = (shown) => async (asking) => {
  try {
    await asking
    return null
  } catch (error) {
    return shown(error)
  }
}
