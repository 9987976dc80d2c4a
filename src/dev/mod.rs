//! Private servers, simulator, replay.

pub mod servers;
/// stub
pub async fn run(_a: crate::cli::DevArgs) -> Result<(), crate::app::StartError> {
    Ok(())
}
/// stub
pub async fn simulate_command(_a: crate::cli::SimulateArgs) -> Result<(), crate::app::StartError> {
    Ok(())
}
